# A node. `docker build -t chat-node .`
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin chatserver --bin chatctl --bin chatclient \
 && cp target/release/chatserver target/release/chatctl target/release/chatclient /usr/local/bin/

FROM debian:bookworm-slim
RUN useradd --system --create-home --home-dir /var/lib/chat chat
COPY --from=build /usr/local/bin/chatserver /usr/local/bin/chatctl /usr/local/bin/chatclient /usr/local/bin/
USER chat
VOLUME /var/lib/chat
ENV CHAT_LOG_FORMAT=json
EXPOSE 6000
ENTRYPOINT ["chatserver"]
CMD ["0.0.0.0", "6000", "--data-dir", "/var/lib/chat"]
