//! `/metrics` and `/healthz`, for operators only.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::store::Store;

/// The text format of prometheus-client.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves for ever.
pub async fn serve(listener: TcpListener, store: Store, metrics: Arc<Metrics>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (store, metrics) = (store.clone(), Arc::clone(&metrics));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &store, &metrics));
            // A client that goes away is no fault.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    store: &Store,
    metrics: &Metrics,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            (StatusCode::OK, METRICS_TYPE, metrics.text())
        }
        (&Method::GET | &Method::HEAD, "/healthz") => match store.is_reachable().await {
            true => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            false => (
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain",
                "the store does not answer\n".to_owned(),
            ),
        },
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "/metrics, /healthz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
