//! The status page: plain HTML, English and Chinese, nothing loaded from elsewhere.

use crate::observe::NodeStatus;
use crate::observe::words;
use std::fmt::Write as _;
use std::time::Duration;

/// Language of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Language {
    English,
    Chinese,
}

impl Language {
    /// `?lang=zh` or `?lang=en` decides; else the browser's first choice of the two.
    pub(super) fn choose(query: Option<&str>, accepted: Option<&str>) -> Language {
        let asked = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("lang=")));
        let wanted = asked.map(str::to_owned).into_iter();
        let listed = accepted.unwrap_or_default().split(',');
        let listed =
            listed.map(|part| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        for tag in wanted.chain(listed) {
            if tag.starts_with("zh") {
                return Language::Chinese;
            }
            if tag.starts_with("en") {
                return Language::English;
            }
        }
        Language::English
    }

    fn pick(self, english: &'static str, chinese: &'static str) -> &'static str {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}

struct Page {
    html: String,
    language: Language,
}

impl Page {
    fn title(&mut self, english: &'static str, chinese: &'static str) {
        let title = self.language.pick(english, chinese);
        // Writing to a String cannot fail; here and below.
        let _ = write!(self.html, "<tr><th colspan=2>{title}</th></tr>");
    }

    fn row(&mut self, english: &'static str, chinese: &'static str, value: impl AsRef<str>) {
        let label = self.language.pick(english, chinese);
        let _ = write!(self.html, "<tr><td>{label}</td><td>{}</td></tr>", escape(value.as_ref()));
    }
}

/// The whole page; `nonce` is what the response's policy knows its style by.
pub(super) fn render(node: &NodeStatus, language: Language, nonce: &str) -> String {
    let mut page = Page { html: String::new(), language };
    let reasons = node.unhealthy();
    let (tag, other_name, other) = match language {
        Language::English => ("en", "中文", "zh"),
        Language::Chinese => ("zh-CN", "English", "en"),
    };
    let (class, health) = match reasons.is_empty() {
        true => ("good", language.pick("healthy", "正常")),
        false => ("bad", language.pick("not healthy", "异常")),
    };
    let roles = escape(&node.process.roles.join(" + "));
    let _ = write!(
        page.html,
        "<!DOCTYPE html><html lang={tag}><head><meta charset=utf-8><meta http-equiv=refresh content=5>\
         <meta name=viewport content=\"width=device-width\"><title>ehpc-store {roles}</title><style nonce={nonce}>{STYLE}</style></head>\
         <body><h1>ehpc-store {roles} <span class={class}>{health}</span></h1>\
         <p class=links><a href=\"/?lang={other}\">{other_name}</a> <a href=/status>JSON</a> <a href=/metrics>metrics</a> <a href=/healthz>healthz</a></p>"
    );
    if !reasons.is_empty() {
        page.html.push_str("<ul class=bad>");
        for reason in &reasons {
            let _ = write!(page.html, "<li>{}</li>", escape(reason));
        }
        page.html.push_str("</ul>");
    }
    page.html.push_str("<table>");
    nfs_rows(&mut page, node);
    replication_rows(&mut page, node);
    backup_rows(&mut page, node);
    database_rows(&mut page, node);
    verify_rows(&mut page, node);
    process_rows(&mut page, node);
    page.html.push_str("</table></body></html>\n");
    page.html
}

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:56em;margin:1em auto;padding:0 1em;color:#222;background:#fff}\
h1{font-size:1.4em}.good{color:#070}.bad{color:#b00}.links a{margin-right:1em}table{border-collapse:collapse;width:100%}\
th{text-align:left;padding:1em 0 .2em;border-bottom:2px solid #888}td{padding:.2em 1em .2em 0;border-bottom:1px solid #ddd;\
vertical-align:top;overflow-wrap:anywhere}td:first-child{width:12em;color:#555}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td:first-child{color:#aaa}.good{color:#7d7}.bad{color:#f77}\
a{color:#9bf}td{border-color:#444}}";

fn nfs_rows(page: &mut Page, node: &NodeStatus) {
    let Some(nfs) = &node.nfs else { return };
    page.title("Share", "共享目录");
    page.row("export", "导出", format!("{} = {}", nfs.export, nfs.path));
    page.row("durability", "持久性", &nfs.durability);
    let clients: Vec<String> = nfs
        .clients
        .iter()
        .filter(|client| client.connections > 0)
        .map(|client| match &client.host {
            Some(host) => format!("{host} ({})", client.address),
            None => client.address.clone(),
        })
        .collect();
    page.row("clients", "客户端", format!("{} {}", clients.len(), clients.join(", ")));
    page.row("operations per second", "每秒操作数", format!("{:.1}", nfs.operations_per_second));
    page.row("operations", "操作总数", words::count(nfs.operations));
    page.row("read", "已读取", words::bytes(nfs.read_bytes));
    page.row("written", "已写入", words::bytes(nfs.written_bytes));
}

fn replication_rows(page: &mut Page, node: &NodeStatus) {
    let now = node.process.now_ms;
    if node.sender.is_some() || node.link.is_some() || node.capture.is_some() {
        page.title("Replication", "实时备份");
    }
    if let Some(capture) = &node.capture {
        page.row("watcher", "变更监视", format!("{} ({})", capture.watcher, capture.reason));
        for mount in &capture.mount_points {
            page.row("not shared: mounted below", "未共享：其下的挂载点", mount);
        }
    }
    if let Some(sender) = &node.sender {
        page.row("changes not yet on the backup", "尚未备份的变更", words::count(sender.dirty));
        page.row("lag", "延迟", words::duration(Duration::from_millis(sender.lag_ms)));
        if let Some(batch) = sender.acknowledged_batch {
            let when = sender.acknowledged_ms.map_or(String::new(), |ms| format!(", {}", words::utc(ms)));
            page.row("last acknowledged batch", "最后确认的批次", format!("{}{when}", words::count(batch)));
        }
        page.row("unreadable objects", "无法读取的对象", words::count(sender.unreadable_total));
    }
    if let Some(link) = &node.link {
        let state = match (link.up, page.language) {
            (true, language) => language.pick("connected", "已连接").to_owned(),
            (false, language) => format!("{} ({})", language.pick("down", "已断开"), link.state),
        };
        page.row("link", "连接", format!("{} {state}", link.peer));
        page.row("sent", "已发送", words::bytes(link.bytes_sent));
        if let Some(ms) = link.since_ms {
            page.row("since", "自", format!("{} ({})", words::utc(ms), words::duration(since(ms, now))));
        }
        if let Some(error) = &link.last_error {
            page.row("last error", "最近的错误", error);
        }
    }
}

fn since(ms: u64, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(ms))
}

fn backup_rows(page: &mut Page, node: &NodeStatus) {
    let Some(backup) = &node.backup else { return };
    page.title("Backup", "备份节点");
    page.row("directory", "目录", &backup.directory);
    page.row("durable batch", "已落盘批次", words::count(backup.durable));
    page.row("applied batch", "已应用批次", words::count(backup.applied));
    page.row("packs", "数据包大小", words::bytes(backup.packs_bytes));
    page.row("free", "剩余空间", words::bytes(backup.free_bytes));
    let off = page.language.pick("off", "未启用");
    page.row("live replica", "实时副本", backup.mirror.as_deref().unwrap_or(off));
    for note in &backup.notes {
        page.row("note", "说明", note);
    }
}

fn database_rows(page: &mut Page, node: &NodeStatus) {
    let Some(database) = &node.database else { return };
    let ago = |ms| format!("{} ({})", words::utc(ms), words::ago(ms, node.process.now_ms));
    page.title("Database", "数据库");
    if let Some(source) = &database.source {
        page.row("server", "服务器", format!("{} {}", source.address, source.version));
        page.row("binary log", "二进制日志", format!("{} {}:{}", source.state, source.file, source.offset));
        page.row("lag", "延迟", words::duration(Duration::from_millis(source.lag_ms)));
        if let Some(semi_sync) = &source.semi_sync {
            page.row("commits wait for the backup", "提交等待备份落盘", &semi_sync.state);
        }
        if let Some(error) = &source.last_error {
            page.row("last error", "最近的错误", error);
        }
    }
    if let Some(archive) = &database.archive {
        let held = format!("{} files, {}", words::count(archive.files), words::bytes(archive.bytes));
        page.row("archive", "日志归档", held);
        page.row("archived up to", "已归档到", format!("{}:{}", archive.file, archive.offset));
        if let Some(ms) = archive.newest_ms {
            page.row("newest event", "最新事件", ago(ms));
        }
    }
    if let Some(bases) = &database.bases {
        page.row("base snapshots", "基础快照", words::count(bases.count));
        if let Some(ms) = bases.newest_ms {
            page.row("newest base snapshot", "最新基础快照", ago(ms));
        }
    }
    if let Some(standby) = &database.standby {
        let lag = words::duration(Duration::from_millis(standby.lag_ms));
        page.row("standby", "备用服务器", format!("{} {}", standby.address, standby.state));
        page.row("standby lag", "备用服务器延迟", lag);
    }
    if let Some(ms) = database.newest_mark_ms {
        page.row("files and database at one moment", "文件与数据库的同一时刻", ago(ms));
    }
}

fn verify_rows(page: &mut Page, node: &NodeStatus) {
    let Some(verify) = &node.verify else { return };
    page.title("Verification", "一致性校验");
    let result = match (verify.running, verify.equal) {
        (true, _) => page.language.pick("running", "正在进行"),
        (false, Some(true)) => page.language.pick("equal", "一致"),
        (false, Some(false)) => page.language.pick("DIFFERENT", "不一致"),
        (false, None) => page.language.pick("never finished", "尚未完成过"),
    };
    page.row("result", "结果", result);
    if let Some(ms) = verify.finished_ms {
        page.row("finished", "完成时间", words::utc(ms));
    }
    page.row("summary", "摘要", &verify.summary);
}

fn process_rows(page: &mut Page, node: &NodeStatus) {
    let process = &node.process;
    page.title("Process", "进程");
    page.row("version", "版本", &process.version);
    page.row("process id", "进程号", process.pid.to_string());
    page.row("up for", "运行时间", words::duration(Duration::from_millis(process.uptime_ms)));
    page.row("memory", "内存", words::bytes(process.rss_bytes));
    for (what, address) in &process.listening {
        page.row("listening", "监听", format!("{what} {address}"));
    }
}

/// What may stand in HTML text.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::{LinkStatus, NfsStatus};

    #[test]
    fn the_language_is_the_readers() {
        use Language::{Chinese, English};
        for (query, accepted, language) in [
            (None, None, English),
            (Some("lang=zh"), Some("en"), Chinese),
            (Some("x=1&lang=en"), Some("zh-CN,zh;q=0.9"), English),
            (None, Some("zh-CN,zh;q=0.9,en;q=0.8"), Chinese),
            (None, Some("de, en-GB;q=0.8, zh;q=0.1"), English),
            (Some("lang=fr"), Some("zh"), Chinese),
        ] {
            assert_eq!(Language::choose(query, accepted), language, "{query:?} {accepted:?}");
        }
    }

    #[test]
    fn names_cannot_inject() {
        let node = NodeStatus {
            nfs: Some(NfsStatus { export: "/<script>\"&'".into(), ..NfsStatus::default() }),
            link: Some(LinkStatus {
                last_error: Some("<b>".into()),
                state: "connecting".into(),
                ..LinkStatus::default()
            }),
            ..NodeStatus::default()
        };
        let page = render(&node, Language::Chinese, "n");
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("/&lt;script&gt;&quot;&amp;&#39;"), "{page}");
        assert!(page.contains("共享目录") && page.contains("异常") && page.contains("lang=zh-CN"), "{page}");
        assert!(
            !page.contains("src=") && !page.contains("http://") && !page.contains("https://"),
            "no external assets"
        );
    }
}
