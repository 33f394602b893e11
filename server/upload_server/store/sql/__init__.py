"""What the stores on SQL databases have in common: statements are written once, and each dialect says its own words."""
