"""The recipes: one module a model of the zoo, named as the model."""
