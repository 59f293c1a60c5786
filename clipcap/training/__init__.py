"""Training a captioner: data, embeddings encoded once, and a loop that survives a kill."""
