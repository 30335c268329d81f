"""Every figure of the course: styling, drawings, photographs, film."""
