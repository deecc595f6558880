"""What is shown in a browser: a run as one file, and a page to play with a model."""
