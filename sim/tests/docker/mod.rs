//! Containers for tests, and what to do where there are none: as in the server's tests.

use std::io::Write as _;

use testcontainers::{GenericImage, core::client::docker_client_instance};

/// Whether tests on containers can run: there is a Docker engine, and it has these images.
///
/// Where it is not so the test passes, having said that it did not run; with `CI=true` it fails.
pub(crate) async fn available(what: &str, images: &[(&str, &str)]) -> bool {
    let mut missing = None;
    for (variable, default) in images {
        let image = name(variable, default);
        if !has(&image).await {
            missing = Some(image);
        }
    }
    let Some(image) = missing else { return true };
    let line = format!(
        "NOT RUN: {what}: no Docker engine with the image {image}; to have it run: start Docker, then ci/images"
    );
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    // Straight to the terminal: the harness shows what a test prints only if it fails.
    std::io::stderr().write_all(format!("\n{line}\n").as_bytes()).unwrap();
    false
}

/// The image that the environment names, or else the one that `ci/images` builds.
pub(crate) fn image(variable: &str, default: &str) -> GenericImage {
    let image = name(variable, default);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => GenericImage::new(name, tag),
        _ => GenericImage::new(image.as_str(), "latest"),
    }
}

fn name(variable: &str, default: &str) -> String {
    std::env::var(variable).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// Whether the engine has an image; one that is not of `ci/images` is pulled by the first test.
async fn has(image: &str) -> bool {
    let Ok(docker) = docker_client_instance().await else { return false };
    if image.ends_with(":local") {
        docker.inspect_image(image).await.is_ok()
    } else {
        docker.ping().await.is_ok()
    }
}
