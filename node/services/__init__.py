"""Long-lived tasks and what stands above the backends: one noun a file."""
