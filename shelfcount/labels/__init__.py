"""Label quality: agreement between annotators, corrections and proposed corrections."""
