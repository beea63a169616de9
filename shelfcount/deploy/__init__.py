"""Deployment: conversion of a trained network to a bundle for phones."""
