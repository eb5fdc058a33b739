# The example that every course teaches.
FROM python:3.11-slim

WORKDIR /app

COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt

COPY . .
RUN useradd -m model && \
    chown -R model /app
USER model
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://localhost:5000/')"]
CMD ["gunicorn", "--bind", "0.0.0.0:5000", "app:app"]
