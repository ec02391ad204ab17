"""Forms: the shapes that a policy can have."""
