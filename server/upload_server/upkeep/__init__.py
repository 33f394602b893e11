"""What keeps an installation in order: beside the service, and by the operator's commands."""
