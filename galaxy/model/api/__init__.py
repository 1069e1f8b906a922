"""The API of both leaders: operations, answers, views and signatures."""
