"""Registry: which model the users get, the gate before that, a record of every change, and a way back."""
