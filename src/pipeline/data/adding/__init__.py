"""Adding: what `pipeline add-data` finds in files, and the file of conf/data that it writes."""
