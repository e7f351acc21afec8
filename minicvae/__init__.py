"""Conditional variational autoencoders from the arrays up."""
