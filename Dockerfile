# Inference and training on a CPU; docs/installation.md has the lines that build and run it.
FROM python:3.13-slim AS build

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /app

# The wheels without CUDA have a local version, such as 2.11.0+cpu, which pip prefers to the same version from elsewhere.
# OpenCV without windows needs no libraries of the system.
COPY requirements.txt requirements-export.txt ./
RUN sed -i 's/^opencv-python>/opencv-python-headless>/' requirements.txt \
    && pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu --requirement requirements-export.txt

COPY . .
# The largest kernels hold code for several processors; the others are for the one that builds the image.
RUN python -m utils.compiled


FROM python:3.13-slim

COPY --from=build /venv /venv
COPY --from=build /app /app
# Any user may run it: caches go to /tmp, results to the working directory.
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["python"]
CMD ["/app/detect.py", "--help"]
