# The app in a container, also as a Hugging Face Space (see spaces/README.md).
# On one's own machine, opened to that machine only:
#   docker build -t ftapp .
#   docker run --gpus all -p 127.0.0.1:7860:7860 -v ftapp:/home/user/ftapp ftapp
FROM python:3.11-slim-bookworm

# gcc: Triton compiles a launcher for its kernels when a GPU is first used
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user

WORKDIR /home/user/app
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

USER user
COPY --chown=user . .
# made here so that a volume mounted on it belongs to the user
RUN mkdir -p /home/user/ftapp

# Inside a container only 0.0.0.0 can be reached from outside it. The app asks nobody who they are:
# whoever reaches the published port can use it, so publish it on 127.0.0.1, or in a private Space.
ENV FTAPP_HOME=/home/user/ftapp \
    FTAPP_HOST=0.0.0.0 \
    FTAPP_PORT=7860 \
    HF_HOME=/home/user/ftapp/huggingface \
    PYTHONUNBUFFERED=1
EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=4)"]

CMD ["python", "app.py"]
