//! What a workload does: SQL texts out of a seed. Each ends with its row in `work.log`, committed.

use std::fmt::Write;

/// SplitMix64: small, and the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end` (not 0).
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn hex(&mut self, bytes: u64) -> String {
        let mut text = String::new();
        for _ in 0..bytes.div_ceil(8) {
            let _ = write!(text, "{:016x}", self.next());
        }
        text
    }
}

/// One connection's texts.
pub(super) struct Statements {
    pub(super) random: Random,
    pub(super) worker: u32,
    /// With what only MariaDB has: XA through the binary log, sequences, system versioning.
    pub(super) maria: bool,
    /// With definitions (DDL).
    pub(super) definitions: bool,
    /// With branches of distributed transactions.
    pub(super) branches: bool,
    /// Longest blob, bytes.
    pub(super) blob: u64,
    /// Where files for LOAD DATA are written.
    pub(super) file: std::path::PathBuf,
}

/// What is there before the work starts; harmless when it is there already.
pub(super) fn set_up(connections: u32, maria: bool) -> String {
    let mut sql = String::from(
        "CREATE DATABASE IF NOT EXISTS work CHARACTER SET utf8mb4;
         CREATE TABLE IF NOT EXISTS work.log (worker INT, seq BIGINT, kind VARCHAR(20), PRIMARY KEY (worker, seq)) ENGINE=InnoDB;
         CREATE TABLE IF NOT EXISTS work.shared (id INT PRIMARY KEY, n BIGINT NOT NULL, who INT, KEY (who)) ENGINE=InnoDB;
         INSERT IGNORE INTO work.shared VALUES (0,0,0),(1,0,0),(2,0,0),(3,0,0),(4,0,0),(5,0,0),(6,0,0),(7,0,0);\n",
    );
    for w in 0..connections {
        let _ = write!(
            sql,
            "CREATE TABLE IF NOT EXISTS work.rows{w} (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(200), c DECIMAL(20,4), d DATETIME, e DOUBLE, KEY (a)) ENGINE=InnoDB;
             CREATE TABLE IF NOT EXISTS work.blobs{w} (id BIGINT PRIMARY KEY, body LONGBLOB) ENGINE=InnoDB;
             CREATE TABLE IF NOT EXISTS work.texts{w} (id BIGINT PRIMARY KEY, t TEXT CHARACTER SET utf8mb4, l VARCHAR(100) CHARACTER SET latin1) ENGINE=InnoDB;
             CREATE TABLE IF NOT EXISTS work.xa{w} (id BIGINT PRIMARY KEY, note VARCHAR(50)) ENGINE=InnoDB;\n"
        );
        if maria {
            let _ = write!(
                sql,
                "CREATE SEQUENCE IF NOT EXISTS work.sequence{w} START WITH 1 INCREMENT BY 3 CACHE 10;
                 CREATE TABLE IF NOT EXISTS work.versioned{w} (id INT PRIMARY KEY, note VARCHAR(50)) ENGINE=InnoDB WITH SYSTEM VERSIONING;\n"
            );
        }
    }
    sql
}

impl Statements {
    /// One piece of work; it is committed when all of it has run.
    pub(super) fn next(&mut self, seq: u64) -> std::io::Result<String> {
        let kinds = if self.maria { 12 } else { 9 };
        let (w, kind) = (self.worker, self.random.below(kinds));
        let log = |kind: &str| format!("INSERT INTO work.log VALUES ({w}, {seq}, '{kind}');");
        Ok(match kind {
            0..=2 => format!("BEGIN; {} {} COMMIT;", self.rows(seq), log("rows")),
            3 => format!("BEGIN; {} {} COMMIT;", self.blob(seq), log("blob")),
            4 => format!("BEGIN; {} {} COMMIT;", self.text(seq), log("text")),
            5 if self.definitions => format!("{} {}", self.definitions(seq), log("ddl")),
            5 => format!("BEGIN; {} {} COMMIT;", self.rows(seq), log("rows")),
            6 => format!(
                "CREATE TEMPORARY TABLE work.tmp (id INT PRIMARY KEY); INSERT INTO work.tmp VALUES (1), (2), (3); BEGIN; \
                 INSERT INTO work.rows{w} (a, b) SELECT id, 'from a temporary table' FROM work.tmp; {} COMMIT; \
                 DROP TEMPORARY TABLE work.tmp;",
                log("temporary")
            ),
            7 => {
                let lines = self.lines();
                std::fs::write(&self.file, lines)?;
                let path = self.file.display();
                let load = format!(
                    "LOAD DATA LOCAL INFILE '{path}' INTO TABLE work.rows{w} FIELDS TERMINATED BY ',' (a, b);"
                );
                format!("BEGIN; {load} {} COMMIT;", log("load"))
            }
            8 => format!(
                "SET SESSION binlog_format = 'STATEMENT'; BEGIN; INSERT INTO work.rows{w} (a, b, d) VALUES ({seq}, \
                 CONNECTION_ID(), NOW()); UPDATE work.rows{w} SET c = IFNULL(c, 0) + 1.5 WHERE a = {}; {} COMMIT; SET SESSION binlog_format = \
                 'ROW';",
                self.random.below(50),
                log("statement")
            ),
            9 if self.branches => self.branch(seq, &log("xa")),
            9 => format!("BEGIN; {} {} COMMIT;", self.rows(seq), log("rows")),
            10 => format!(
                "BEGIN; INSERT INTO work.rows{w} (a, b) VALUES (NEXT VALUE FOR work.sequence{w}, 'sequence'); {} COMMIT;",
                log("sequence")
            ),
            _ => {
                let id = self.random.below(20);
                let change = match self.random.below(4) {
                    0 => format!("DELETE FROM work.versioned{w} WHERE id = {id};"),
                    _ => format!("REPLACE INTO work.versioned{w} (id, note) VALUES ({id}, 'n{seq}');"),
                };
                format!("BEGIN; {change} {} COMMIT;", log("versioned"))
            }
        })
    }

    fn rows(&mut self, seq: u64) -> String {
        let (w, count) = (self.worker, 1 + self.random.below(20));
        let mut sql = format!("INSERT INTO work.rows{w} (a, b, c, d, e) VALUES ");
        for n in 0..count {
            let comma = if n == 0 { "" } else { ", " };
            let (a, b, e) = (self.random.below(50), self.random.hex(16), self.random.below(1000));
            let _ = write!(sql, "{comma}({a}, '{b}', {seq}.{n}, '2026-01-01 00:00:{:02}', {e} / 7)", n % 60);
        }
        let (a, id) = (self.random.below(50), self.random.below(8));
        let _ = write!(sql, "; UPDATE work.rows{w} SET b = CONCAT('u', {seq}) WHERE a = {a} LIMIT 5;");
        match self.random.below(3) {
            0 => {
                sql += &format!(
                    " DELETE FROM work.rows{w} WHERE a = {} ORDER BY id LIMIT 5;",
                    self.random.below(50)
                )
            }
            1 => sql += &format!(" UPDATE work.shared SET n = n + 1, who = {w} WHERE id = {id};"),
            _ => {}
        }
        sql
    }

    fn blob(&mut self, seq: u64) -> String {
        let size = 1 + self.random.below(self.blob);
        format!("INSERT INTO work.blobs{} VALUES ({seq}, x'{}');", self.worker, self.random.hex(size))
    }

    fn text(&mut self, seq: u64) -> String {
        let words = [
            "日本語テキスト",
            "😀🐧🎉",
            "žluťoučký kůň",
            "ελληνικά",
            "quote '' and \\\\ and \\n",
            "{\"a\": [1, null]}",
        ];
        let n = self.random.below(words.len() as u64) as usize;
        format!("INSERT INTO work.texts{} VALUES ({seq}, '{} {seq}', 'caf\u{e9}');", self.worker, words[n])
    }

    fn lines(&mut self) -> String {
        let count = 1 + self.random.below(200);
        (0..count).fold(String::new(), |mut text, _| {
            let _ = writeln!(text, "{},loaded {}", self.random.below(50), self.random.below(1 << 40));
            text
        })
    }

    /// A branch of a distributed transaction; some are rolled back (their log row with them, so it is logged after).
    fn branch(&mut self, seq: u64, log: &str) -> String {
        let w = self.worker;
        let begin = format!("XA START 'w{w}-{seq}'; INSERT INTO work.xa{w} VALUES ({seq}, 'branch');");
        let prepare = format!("XA END 'w{w}-{seq}'; XA PREPARE 'w{w}-{seq}';");
        match self.random.below(4) {
            0 => format!("{begin} {prepare} XA ROLLBACK 'w{w}-{seq}'; {log}"),
            1 => format!("{begin} {log} XA END 'w{w}-{seq}'; XA COMMIT 'w{w}-{seq}' ONE PHASE;"),
            _ => format!("{begin} {log} {prepare} XA COMMIT 'w{w}-{seq}';"),
        }
    }

    /// Definitions of every kind, from their creation to their end, some of them left to stay.
    fn definitions(&mut self, seq: u64) -> String {
        let (w, n) = (self.worker, self.random.below(4));
        let name = format!("work.d{w}_{n}");
        match self.random.below(6) {
            0 => format!(
                "DROP TABLE IF EXISTS {name}, {name}_renamed; CREATE TABLE {name} (id INT PRIMARY KEY, v VARCHAR(20)) ENGINE=InnoDB; \
                 INSERT INTO {name} VALUES (1, 'one'), (2, 'two'); ALTER TABLE {name} ADD COLUMN added INT NOT NULL DEFAULT {n}; \
                 ALTER TABLE {name} MODIFY v VARCHAR(300) CHARACTER SET utf8mb4, ADD INDEX (v(20)); \
                 INSERT INTO {name} VALUES (3, 'three', 3); RENAME TABLE {name} TO {name}_renamed; \
                 CREATE TABLE {name} LIKE {name}_renamed; INSERT INTO {name} SELECT * FROM {name}_renamed; \
                 ALTER TABLE {name}_renamed DROP COLUMN added;"
            ),
            1 => format!(
                "DROP TABLE IF EXISTS {name}; CREATE TABLE {name} ENGINE=InnoDB AS SELECT id, a, b FROM work.rows{w} LIMIT 10; \
                 TRUNCATE TABLE {name}; ALTER TABLE {name} ADD PRIMARY KEY (id);"
            ),
            2 => format!(
                "CREATE OR REPLACE VIEW work.view{w}_{n} AS SELECT id, a * {n} AS a FROM work.rows{w} WHERE a > {n}; \
                 CREATE OR REPLACE VIEW work.view{w}_{n}_over AS SELECT COUNT(*) AS c FROM work.view{w}_{n};"
            ),
            3 => format!(
                "DROP PROCEDURE IF EXISTS work.p{w}_{n}; CREATE PROCEDURE work.p{w}_{n}(x INT) INSERT INTO work.rows{w} (a, b) \
                 VALUES (x, 'procedure'); CALL work.p{w}_{n}({n}); DROP FUNCTION IF EXISTS work.f{w}_{n}; CREATE FUNCTION \
                 work.f{w}_{n}(x INT) RETURNS INT DETERMINISTIC RETURN x + {n}; UPDATE work.rows{w} SET a = work.f{w}_{n}(a) \
                 ORDER BY id LIMIT 1;"
            ),
            4 => format!(
                "DROP TRIGGER IF EXISTS work.trigger{w}; CREATE TRIGGER work.trigger{w} BEFORE INSERT ON work.rows{w} FOR EACH ROW \
                 SET NEW.e = {n}; INSERT INTO work.rows{w} (a, b) VALUES ({n}, 'trigger'); DROP EVENT IF EXISTS work.event{w}; \
                 CREATE EVENT work.event{w} ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01' DISABLE DO DELETE FROM work.rows{w};"
            ),
            _ => format!(
                "CREATE DATABASE work{w}_{seq} CHARACTER SET latin1; CREATE TABLE work{w}_{seq}.t (id INT PRIMARY KEY) \
                 ENGINE=InnoDB; INSERT INTO work{w}_{seq}.t VALUES ({n}); DROP DATABASE work{w}_{seq}; \
                 CREATE USER 'u{w}_{seq}'@'localhost' IDENTIFIED BY 'secret'; GRANT SELECT ON work.* TO 'u{w}_{seq}'@'localhost';"
            ),
        }
    }
}
