"""The application: experiment file -> Ray Tune run -> results a person can use."""
