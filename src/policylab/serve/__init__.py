"""Policies over HTTP: language policies as an OpenAI-compatible endpoint, control policies behind a small API of their own."""
