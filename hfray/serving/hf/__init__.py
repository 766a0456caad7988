"""The Hugging Face Inference protocol: requests to rows and options of a task, results to answers."""
