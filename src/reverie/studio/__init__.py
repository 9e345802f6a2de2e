"""The studio: an HTTP server that paints, thinks aloud and remembers, and the page it serves.

Two processes. The server (app.py and what it names) speaks HTTP, keeps the queue and the index of runs, and never loads
a model. The worker (worker.py) holds the models and paints; if it dies, the server starts another and lives on. Events
go through each run's trace on disk: the worker writes it, the server reads from it, live or years later, by one path.
"""
