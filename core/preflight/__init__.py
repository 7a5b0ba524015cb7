"""What can be refused before any weight is read. Standard library only: the API imports it and carries no torch."""
