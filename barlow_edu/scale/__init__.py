"""What a laptop does not need: large images, many processes, plans, published weights."""
