//! The status page: files that are part of the program. page/uplot/README.md says where the plotting library is from.

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// Kind and content of a file of the page.
pub(super) fn file(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/" => (HTML, include_str!("page/index.html")),
        "/page.js" => (SCRIPT, include_str!("page/page.js")),
        "/page.css" => (STYLE, include_str!("page/page.css")),
        "/icon.svg" => (ICON, include_str!("page/icon.svg")),
        "/uplot.js" => (SCRIPT, include_str!("page/uplot/uPlot.iife.min.js")),
        "/uplot.css" => (STYLE, include_str!("page/uplot/uPlot.min.css")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ring::digest::{SHA256, digest};

    use super::file;

    #[test]
    fn the_plotting_library_is_the_one_that_its_page_names() {
        let about = include_str!("page/uplot/README.md");
        for path in ["/uplot.js", "/uplot.css"] {
            let hash: String = digest(&SHA256, file(path).unwrap().1.as_bytes())
                .as_ref()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            assert!(about.contains(&hash), "{path} is {hash}");
        }
    }

    #[test]
    fn the_page_names_no_other_host_and_has_no_script_or_style_of_its_own() {
        let page = file("/").unwrap().1;
        for wrong in ["http:", "https:", "//", "<style", "style=", "onclick", "onload", "javascript:"] {
            assert!(!page.contains(wrong), "{wrong}");
        }
        assert!(page.split("<script").skip(1).all(|script| script.starts_with(" src=\"/")), "{page}");
        for path in ["/page.js", "/page.css"] {
            assert!(!file(path).unwrap().1.contains("://"), "{path} names a host");
        }
    }
}
