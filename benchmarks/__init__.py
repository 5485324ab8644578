"""The figures that the documentation quotes, one command each."""
