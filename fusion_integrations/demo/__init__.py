"""The embedded example: tasks written for this project and logs really collected from small local models."""
