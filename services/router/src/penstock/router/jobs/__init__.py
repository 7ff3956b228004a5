"""Work for callers that do not wait. Imports calls for what a job comes to."""
