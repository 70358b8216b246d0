"""Gymnasium environments with controllable nuisances, exploring agents and collection."""
