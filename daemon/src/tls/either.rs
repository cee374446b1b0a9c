//! Reading and writing for what is one of two kinds of connection.

/// Has `$two` read and write with whichever of its two variants it is.
macro_rules! read_and_write_either {
    ($two:ident: $one:ident, $other:ident) => {
        impl tokio::io::AsyncRead for $two {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                into: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    Self::$one(stream) => std::pin::Pin::new(stream).poll_read(cx, into),
                    Self::$other(stream) => std::pin::Pin::new(stream).poll_read(cx, into),
                }
            }
        }

        impl tokio::io::AsyncWrite for $two {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                octets: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    Self::$one(stream) => std::pin::Pin::new(stream).poll_write(cx, octets),
                    Self::$other(stream) => std::pin::Pin::new(stream).poll_write(cx, octets),
                }
            }

            /// One record of TLS, which is what there mostly is, goes by `send` instead of `writev`: the kernel has less to
            /// do for it.
            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                octets: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                if let [only] = octets {
                    return self.poll_write(cx, only);
                }
                match self.get_mut() {
                    Self::$one(stream) => std::pin::Pin::new(stream).poll_write_vectored(cx, octets),
                    Self::$other(stream) => std::pin::Pin::new(stream).poll_write_vectored(cx, octets),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::$one(stream) => stream.is_write_vectored(),
                    Self::$other(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    Self::$one(stream) => std::pin::Pin::new(stream).poll_flush(cx),
                    Self::$other(stream) => std::pin::Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    Self::$one(stream) => std::pin::Pin::new(stream).poll_shutdown(cx),
                    Self::$other(stream) => std::pin::Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

pub(super) use read_and_write_either;
