"""Persona Explorer: browse, steer, label and compare the features of language models."""
