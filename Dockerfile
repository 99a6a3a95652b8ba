# The app in a container, also as a Hugging Face Space (see docs/spaces.md).
# On one's own machine, opened to that machine only, with a password of yours:
#   docker build -t ftapp .
#   docker run --gpus all -p 127.0.0.1:7860:7860 -e FTAPP_PASSWORD -v ftapp:/home/user/ftapp ftapp
FROM python:3.11-slim-bookworm

# gcc: Triton compiles a launcher for its kernels when a GPU is first used
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user

# PyPI's torch brings CUDA
WORKDIR /home/user/app
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

# the code is root's: the app, and whatever it may be made to do, cannot change it
COPY . .
RUN python -m compileall -q app.py ftapp

USER user
# made here so that a volume mounted on it belongs to the user
RUN mkdir -p /home/user/ftapp

# Inside a container only 0.0.0.0 can be reached from outside it, so the app asks for FTAPP_PASSWORD; in a Space people
# sign in instead. With SYSTEM, Gradio looks for SPACE_ID to know whether this is one; elsewhere there is none.
ENV FTAPP_HOME=/home/user/ftapp \
    FTAPP_HOST=0.0.0.0 \
    FTAPP_PORT=7860 \
    HF_HOME=/home/user/ftapp/.huggingface \
    TRITON_CACHE_DIR=/home/user/ftapp/.triton \
    SYSTEM=spaces \
    PYTHONUNBUFFERED=1
EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 7860, timeout=4); c.request('GET', '/health'); assert c.getresponse().status == 200"]

CMD ["python", "app.py"]
