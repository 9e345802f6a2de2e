"""One file for each verb of the command line: checks its input, calls the library, says what came out."""
