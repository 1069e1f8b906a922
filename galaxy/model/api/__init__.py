"""The API of AppMaster: operations, answers, views and signatures."""
