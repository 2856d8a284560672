"""What can be said of an app without running it: mistakes that the compiler does not see, found by reading its source."""
