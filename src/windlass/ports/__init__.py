"""The seams: what a store must do, and how an operation is written once for every driver."""
