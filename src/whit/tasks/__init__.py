"""Built-in tasks: functions that return a `Task`, one file per data set."""
