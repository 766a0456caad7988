"""OpenAI's API in terms of tasks: bodies of requests to rows and options, results to bodies of responses."""
