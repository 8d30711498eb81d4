//! Tables of every kind, and a change of each.

use super::*;

/// (definition, three rows, a change of one of them, what names its key) of tables of many kinds.
const KINDS: &[(&str, &str, &str, &str)] = &[
    (
        "a INT PRIMARY KEY, b VARCHAR(9)",
        "(1,'x'),(2,'y'),(3,NULL)",
        "UPDATE {} SET b='' WHERE a=3",
        "`a` = 3",
    ),
    (
        "a INT, b VARCHAR(20) COLLATE utf8mb4_czech_ci, c INT, PRIMARY KEY (b, a)",
        "(1,'chata',1),(1,'cihla',2),(2,'čaj ''`',3)",
        "UPDATE {} SET c=9 WHERE c=3",
        "`b` = 'čaj ''`', `a` = 2",
    ),
    (
        "k VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, c INT",
        "('ä',1),('B',2),('z',3)",
        "DELETE FROM {} WHERE k='B'",
        "`k` = 'B'",
    ),
    (
        "k VARBINARY(9) PRIMARY KEY",
        "(x''),(x'00ff'),(x'27')",
        "DELETE FROM {} WHERE k=x'00ff'",
        "`k` = x'00FF'",
    ),
    (
        "k DECIMAL(20,5) PRIMARY KEY, f FLOAT",
        "(-1.5,1),(0,2),(7.12345,3)",
        "UPDATE {} SET f=f+f*1e-7 WHERE k=0",
        "`k` = 0.00000",
    ),
    (
        "k DATETIME(6) PRIMARY KEY, d DOUBLE",
        "('2020-01-01 00:00:00.000001',1),('2021-01-01',2),('2022-01-01',3)",
        "UPDATE {} SET d=3.0000000000000004 WHERE d=3",
        "`k` = '2022-01-01 00:00:00.000000'",
    ),
    (
        "k TIMESTAMP PRIMARY KEY, b BIT(20)",
        "('2020-10-25 00:30:00',1),('2020-10-25 01:30:00',b'11'),('2022-01-01',3)",
        "UPDATE {} SET b=b'10' WHERE b=1",
        "`k` = '2020-10-25 00:30:00'",
    ),
    (
        "k BIT(20) PRIMARY KEY, t TIME(3)",
        "(1,'10:00'),(2,'-800:00:00.125'),(1000,NULL)",
        "UPDATE {} SET t='0' WHERE k=1000",
        "`k` = 1000",
    ),
    (
        "k UUID PRIMARY KEY, i INET6",
        "('123e4567-e89b-12d3-a456-426655440000','::1'),('00000000-0000-0000-0000-000000000001',NULL),('f23e4567-e89b-12d3-a456-426655440000','1::')",
        "UPDATE {} SET i='::2' WHERE i='::1'",
        "`k` = '123e4567-e89b-12d3-a456-426655440000'",
    ),
    (
        "k ENUM('z','a','m') PRIMARY KEY, s SET('p','q')",
        "('z','p,q'),('a',''),('m',NULL)",
        "UPDATE {} SET s='q' WHERE k='z'",
        "",
    ),
    ("a INT, b INT", "(1,1),(1,1),(2,2)", "UPDATE {} SET a=2, b=2 LIMIT 1", ""),
    (
        "a INT, b INT, t TEXT",
        "(1,1,'x'),(1,1,'x'),(NULL,2,NULL)",
        "INSERT INTO {} VALUES (1,1,'x'),(1,1,'x')",
        "",
    ),
    ("a TEXT, PRIMARY KEY (a(3))", "('abcd'),('bcd'),('cd')", "UPDATE {} SET a='abce' WHERE a='abcd'", ""),
    (
        "a INT PRIMARY KEY, t LONGBLOB, j JSON",
        "(1,REPEAT('x',5000000),'{\"a\":1}'),(2,x'00','[]'),(3,NULL,NULL)",
        "UPDATE {} SET t=CONCAT(LEFT(t,4999999),'y') WHERE a=1",
        "`a` = 1",
    ),
    (
        "a INT PRIMARY KEY, g INT, v INT AS (g*2) VIRTUAL, s INT AS (g*3) PERSISTENT",
        "(1,2,DEFAULT,DEFAULT),(2,3,DEFAULT,DEFAULT),(3,4,DEFAULT,DEFAULT)",
        "UPDATE {} SET g=5 WHERE a=2",
        "`a` = 2",
    ),
    (
        "a INT PRIMARY KEY, h INT INVISIBLE DEFAULT 7, y YEAR",
        "(1,2020),(2,2021),(3,0)",
        "UPDATE {} SET h=8 WHERE a=2",
        "`a` = 2",
    ),
    (
        "a INT PRIMARY KEY, p POINT, g GEOMETRY",
        "(1,POINT(1,2),NULL),(2,NULL,LineString(Point(0,0),Point(1,1))),(3,NULL,NULL)",
        "UPDATE {} SET p=POINT(1,3) WHERE a=1",
        "`a` = 1",
    ),
    (
        "a BIGINT UNSIGNED PRIMARY KEY, d DATE",
        "(18446744073709551615,'0001-01-01'),(0,NULL),(9,'9999-12-31')",
        "DELETE FROM {} WHERE a>9",
        "`a` = 18446744073709551615",
    ),
    (
        "a INT PRIMARY KEY, b VARCHAR(9), c VARCHAR(9)",
        "(1,NULL,'x'),(2,'x',NULL),(3,'','')",
        "UPDATE {} SET b='x', c=NULL WHERE a=1",
        "`a` = 1",
    ),
    (
        "a INT PRIMARY KEY, b INT) PARTITION BY HASH (a) PARTITIONS 4 -- (",
        "(1,1),(2,2),(3,3)",
        "UPDATE {} SET b=9 WHERE a=2",
        "`a` = 2",
    ),
];

#[test]
fn every_kind_of_table() {
    let two = Two::start();
    let name = |at: usize| format!("`d``b 'ж\"`.`t{at}``☃ \"'`");
    two.primary.sql("CREATE DATABASE `d``b 'ж\"`").unwrap();
    for (at, (definition, rows, ..)) in KINDS.iter().enumerate() {
        let table = name(at);
        let closing = if definition.contains("--") { "\n" } else { ")" };
        two.primary
            .sql(&format!("CREATE TABLE {table} ({definition}{closing}; INSERT INTO {table} VALUES {rows}"))
            .unwrap();
    }
    two.catch_up();
    for deep in [false, true] {
        let found = two.deep(deep).unwrap();
        assert_equal(&found);
        assert_eq!(found.tables, KINDS.len() as u64);
        assert_eq!(found.by_rows.1 > 0, deep);
    }
    for (at, (.., change, _)) in KINDS.iter().enumerate() {
        two.plant(&change.replace("{}", &name(at)));
    }
    let found = two.compare();
    println!("{found}");
    assert_eq!((found.differences.len(), found.unchecked.len()), (KINDS.len(), 0), "{found}");
    for (at, (definition, .., change, key)) in KINDS.iter().enumerate() {
        let wanted = format!("t{at}`☃ \"'");
        let difference = found.differences.iter().find(|difference| difference.item.name == wanted).unwrap();
        let Way::Rows(differ) = &difference.way else { panic!("{difference}") };
        assert_ne!(differ.ranges[0].sums, (String::new(), String::new()));
        match *key {
            "" => assert!(differ.ranges[0].keys.is_empty() && differ.ranges[0].differing.is_none()),
            key => {
                assert_eq!(differ.ranges[0].differing, Some(1), "{definition} {change}: {difference}");
                assert_eq!(differ.ranges[0].keys[0].key, key, "{difference}");
            }
        }
    }
    let deep = two.deep(true).unwrap();
    assert_eq!(deep.differences.len(), KINDS.len(), "{deep}");
    two.assert_follows();
}
