"""Ask a model in TensorFlow Serving, by REST or by gRPC.

    python examples/serving/client.py '{"age": [31.0], "country": ["de"]}' [--host HOST] [--grpc]

REST needs the standard library alone, gRPC `tensorflow-serving-api`. Prints each output's values.
"""

import argparse
import json
import urllib.request


def rest(host, columns, model="ranker", signature="serving_default"):
    """Outputs by name of columns by name, lists in natural nesting."""
    body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
    url = f"http://{host}:8501/v1/models/{model}:predict"
    with urllib.request.urlopen(url, body, timeout=30) as answer:
        found = json.load(answer)["outputs"]
    return found if isinstance(found, dict) else {"outputs": found}  # a single one has no name


def grpc(host, columns, model="ranker", signature="serving_default"):
    """The same; the server is asked first for the dtypes of its inputs, which must be exact."""
    import grpc as transport
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    with transport.insecure_channel(f"{host}:8500") as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        about = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        about.model_spec.name = model
        found = get_model_metadata_pb2.SignatureDefMap()
        service.GetModelMetadata(about, timeout=30).metadata["signature_def"].Unpack(found)
        inputs = found.signature_def[signature].inputs

        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        for name, values in columns.items():
            proto = tf.make_tensor_proto(values, tf.as_dtype(inputs[name].dtype))
            request.inputs[name].CopyFrom(proto)
        outputs = service.Predict(request, timeout=30).outputs
        return {name: tf.make_ndarray(values).tolist() for name, values in outputs.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("columns", type=json.loads, help="JSON: {column: [values]}")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--model", default="ranker")
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--grpc", action="store_true")
    options = parser.parse_args()
    ask = grpc if options.grpc else rest
    found = ask(options.host, options.columns, options.model, options.signature)
    for name, values in found.items():
        print(name, values)
