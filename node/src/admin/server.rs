//! The HTTP server: a thread of its own, so that no question slows a client.
//!
//! Shared with `verge-cloud`, which serves its own routes with it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{Builder, JoinHandle};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::page::ApiError;
use crate::shard::on_this_thread;

/// Largest request body; no request needs one.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The admin API has its address, and waits to be served.
#[derive(Debug)]
pub struct AdminServer {
    socket: TcpListener,
    addr: SocketAddr,
}

/// Why the admin API cannot be opened: one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.line())]
pub struct AdminError {
    addr: SocketAddr,
    source: io::Error,
}

impl AdminError {
    fn line(&self) -> String {
        let Self { addr, source } = self;
        if source.kind() == io::ErrorKind::AddrInUse {
            format!(
                "port in use: admin API {addr}: choose another with --admin, one for each node of \
                 this machine"
            )
        } else {
            format!("admin API {addr}: {source}: check --admin")
        }
    }
}

impl AdminServer {
    /// Opens the address.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn bind(addr: SocketAddr) -> Result<Self, AdminError> {
        let failed = |source| AdminError { addr, source };
        let socket = TcpListener::bind(addr).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        if !addr.ip().is_loopback() {
            tracing::warn!(%addr, "the admin API has no authentication and is not on loopback");
        }
        Ok(Self { socket, addr })
    }

    /// The address, with the port it really has.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves `routes` until `stop` is true.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn serve(self, routes: Router, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
        Builder::new().name("admin".into()).spawn(move || {
            on_this_thread(async move {
                if let Err(error) = serve(self.socket, routes, stop).await {
                    tracing::error!(%error, "admin API ended");
                }
            });
        })
    }
}

async fn serve(
    socket: TcpListener,
    routes: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let routes = routes
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "no such path; see /openapi.json"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(refuse_web_pages));
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let stopped = async move {
        // An error says that the sender is gone, and with it the node.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    tokio::select! {
        served = axum::serve(socket, routes) => served,
        () = stopped => Ok(()),
    }
}

/// A web page in a browser on this machine reaches loopback, too, but must not command a node.
async fn refuse_web_pages(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && request.headers().contains_key(header::ORIGIN) {
        let why = "commands from web pages are refused";
        return ApiError::new(StatusCode::FORBIDDEN, why).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let held = AdminServer::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let said = AdminServer::bind(held.addr()).unwrap_err().to_string();
        assert!(said.starts_with(&format!("port in use: admin API {}: ", held.addr())), "{said}");
    }
}
