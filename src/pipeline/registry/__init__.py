"""Registry: promote models to users through a gate, record every change in a journal, and roll back."""
