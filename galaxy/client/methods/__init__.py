"""The methods of ``Galaxy``, one file for each subject."""
