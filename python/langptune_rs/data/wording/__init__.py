"""The words of prompts: Jinja templates, and what fills them in."""
