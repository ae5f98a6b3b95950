"""A SavedModel as MLflow's scoring server runs it: columns in, outputs by name out."""

import tensorflow as tf


class Served:
    def __init__(self, path):
        self.model = tf.saved_model.load(path)

    def predict(self, columns, params=None):
        serve = self.model.signatures["serving_default"]
        _, specs = serve.structured_input_signature
        missing = sorted(set(specs) - set(columns))
        if missing:
            raise ValueError(f"Columns must be {sorted(specs)}. Missing: {missing}")
        inputs = {name: tf.constant(columns[name], spec.dtype) for name, spec in specs.items()}
        return {name: values.numpy() for name, values in serve(**inputs).items()}


def _load_pyfunc(path):
    """MLflow calls it with the folder that the model was saved with as `data_path`."""
    return Served(path)
