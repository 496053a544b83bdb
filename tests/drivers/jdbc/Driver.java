import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.copy.CopyOut;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

/** The JDBC driver at its own kind of work, in each of its query modes. Where the server is, libpq's variables say. */
public final class Driver {
    private static final String SCHEMA = """
        DROP SCHEMA IF EXISTS d_jdbc CASCADE;
        CREATE SCHEMA d_jdbc;
        CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE, price numeric(10, 2) CHECK (price >= 0), raw bytea,
                           tags text[], made timestamp, flag boolean, big bigint, real float8);
        CREATE TABLE line (id serial PRIMARY KEY, item int REFERENCES item, amount int);
        CREATE TABLE kept (what text PRIMARY KEY, digest text, bytes int)""";
    /** The first row comes when the second one has filled the server's buffer; then it sleeps. */
    private static final String SLOW =
        "COPY (SELECT repeat('x', 100000) FROM generate_series(1, 2) UNION ALL SELECT pg_sleep(30)::text) TO STDOUT";

    private Driver() {}

    private interface Work {
        void run() throws Exception;
    }

    private static void say(Object... words) {
        StringBuilder line = new StringBuilder();
        for (Object word : words) {
            line.append(line.length() == 0 ? "" : " ");
            line.append(word instanceof int[] counts ? Arrays.toString(counts) : String.valueOf(word));
        }
        System.out.println(line);
    }

    private static void attempt(Work work) throws Exception {
        try {
            work.run();
        } catch (SQLException error) {
            for (SQLException each = error; each != null; each = each.getNextException()) {
                say("error", each.getClass().getSimpleName(), each.getSQLState(), each.getMessage().lines().findFirst().get());
            }
            if (error instanceof BatchUpdateException batch) {
                say("counts", batch.getUpdateCounts());
            }
        }
    }

    private static Connection connect(String mode, String... more) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        for (String[] given : new String[][] {{"password", "PGPASSWORD"}, {"sslmode", "PGSSLMODE"}}) {
            if (System.getenv(given[1]) != null) {
                properties.setProperty(given[0], System.getenv(given[1]));
            }
        }
        properties.setProperty("preferQueryMode", mode);
        properties.setProperty("currentSchema", "d_jdbc");
        properties.setProperty("prepareThreshold", "2");
        for (int i = 0; i < more.length; i += 2) {
            properties.setProperty(more[i], more[i + 1]);
        }
        String where = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/";
        String database = properties.getProperty("database", System.getenv("PGDATABASE"));
        properties.remove("database");
        return DriverManager.getConnection("jdbc:postgresql://" + where + database, properties);
    }

    private static void show(ResultSet rows) throws SQLException {
        ResultSetMetaData meta = rows.getMetaData();
        while (rows.next()) {
            StringBuilder line = new StringBuilder();
            for (int i = 1; i <= meta.getColumnCount(); i++) {
                // As text, bytes that came in binary are the number of an object.
                Object value = meta.getColumnType(i) == Types.BINARY ? Arrays.toString(rows.getBytes(i)) : rows.getString(i);
                line.append(meta.getColumnName(i)).append('=').append(value).append(' ');
            }
            say(line.toString().trim());
        }
        rows.close();
    }

    private static void query(Connection connection, String sql) throws Exception {
        attempt(() -> {
            try (Statement statement = connection.createStatement()) {
                boolean rows = statement.execute(sql);
                while (rows || statement.getUpdateCount() != -1) {
                    if (rows) {
                        show(statement.getResultSet());
                    } else {
                        say("updated", statement.getUpdateCount());
                    }
                    rows = statement.getMoreResults();
                }
                for (SQLWarning note = statement.getWarnings(); note != null; note = note.getNextWarning()) {
                    say("warning", note.getSQLState(), note.getMessage());
                }
            }
        });
    }

    private static void values(Connection connection) throws Exception {
        say("- values, and keys that were made");
        String insert = "INSERT INTO item (name, price, raw, tags, made, flag, big, real) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            for (int n = 0; n < 4; n++) {
                statement.setString(1, "ä'\\" + n);
                statement.setBigDecimal(2, new BigDecimal("12.50"));
                statement.setBytes(3, new byte[] {0, 1, (byte) 255});
                statement.setArray(4, connection.createArrayOf("text", new String[] {"a", null, "\""}));
                statement.setObject(5, java.time.LocalDateTime.of(2024, 2, 29, 1, 2, 3));
                statement.setBoolean(6, n % 2 == 0);
                statement.setLong(7, Long.MAX_VALUE);
                statement.setDouble(8, 0.1 + 0.2);
                say("updated", statement.executeUpdate());
                show(statement.getGeneratedKeys());
            }
        }
        // Often enough for a named statement, and then for binary.
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM item WHERE id >= ? ORDER BY id")) {
            for (int n = 0; n < 6; n++) {
                statement.setInt(1, n);
                show(statement.executeQuery());
            }
        }
        attempt(() -> {
            try (PreparedStatement statement = connection.prepareStatement("SELECT ? + 1, ?::text")) {
                statement.setInt(1, 41);
                statement.setNull(2, java.sql.Types.VARCHAR);
                say(statement.getParameterMetaData().getParameterCount(), statement.getMetaData().getColumnTypeName(1));
                show(statement.executeQuery());
            }
        });
        query(connection, "SELECT 1 AS one; UPDATE item SET price = 2 WHERE id = 1; SELECT 2 AS two");
        query(connection, "SELECT nothing FROM item");
        query(connection, "INSERT INTO item (name, price) VALUES ('x', -1)");
        query(connection, "DO $$ BEGIN RAISE NOTICE 'look'; RAISE WARNING 'mind'; END $$");
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_SENSITIVE, ResultSet.CONCUR_UPDATABLE);
                ResultSet rows = statement.executeQuery("SELECT id, name, price FROM item WHERE id = 1")) {
            rows.next();
            rows.updateBigDecimal("price", new BigDecimal("3.75"));
            rows.updateRow();
            say(rows.getBigDecimal("price"));
        }
    }

    private static void batches(Connection connection) throws Exception {
        say("- batches");
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO line (item, amount) VALUES (?, ?)")) {
            for (int round = 0; round < 2; round++) {
                for (int n = 0; n < 150; n++) {
                    statement.setInt(1, 1);
                    statement.setInt(2, n);
                    statement.addBatch();
                }
                say(Arrays.stream(statement.executeBatch()).distinct().toArray());
            }
            for (int item : new int[] {1, 999, 2}) {
                statement.setInt(1, item);
                statement.setInt(2, item);
                statement.addBatch();
            }
            attempt(statement::executeBatch);
        }
        try (Statement statement = connection.createStatement()) {
            statement.addBatch("UPDATE line SET amount = amount + 1 WHERE id = 1");
            statement.addBatch("DELETE FROM line WHERE id = 2");
            statement.addBatch("SELECT 1 / 0");
            attempt(statement::executeBatch);
        }
        query(connection, "SELECT count(*), sum(amount) FROM line");
    }

    private static void cursors(Connection connection) throws Exception {
        say("- rows by portions");
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("SELECT id, amount FROM line WHERE id > ? ORDER BY id")) {
            statement.setFetchSize(40);
            for (int n = 0; n < 3; n++) {
                statement.setInt(1, n);
                long sum = 0;
                int count = 0;
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next() && (n != 1 || count < 50)) {
                        sum += rows.getInt(2);
                        count++;
                    }
                }
                say(count, sum);
            }
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    private static void copies(Connection connection) throws Exception {
        say("- COPY");
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int n = 0; n < 300; n++) {
            lines.append("2\t").append(n).append('\n');
        }
        say(copy.copyIn("COPY line (item, amount) FROM STDIN", new StringReader(lines.toString())));
        attempt(() -> copy.copyIn("COPY line (item, amount) FROM STDIN", new StringReader("2\tno number\n")));
        CopyIn given = copy.copyIn("COPY line (item, amount) FROM STDIN");
        given.writeToCopy("2\t1\n".getBytes(), 0, 4);
        given.cancelCopy();
        StringWriter out = new StringWriter();
        say(copy.copyOut("COPY (SELECT * FROM line ORDER BY id) TO STDOUT (FORMAT csv)", out), out.toString().length());
        query(connection, "SELECT count(*), sum(amount) FROM line");
    }

    private static void transactions(Connection connection) throws Exception {
        say("- savepoints and isolation");
        connection.setAutoCommit(false);
        connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        query(connection, "UPDATE item SET price = 5 WHERE id = 2");
        Savepoint named = connection.setSavepoint("here");
        query(connection, "INSERT INTO item (name) VALUES ('ä''\\1')");
        query(connection, "SELECT 'in a transaction that failed'");
        connection.rollback(named);
        connection.releaseSavepoint(connection.setSavepoint());
        query(connection, "SELECT price FROM item WHERE id = 2");
        connection.commit();
        connection.setReadOnly(true);
        query(connection, "DELETE FROM line");
        connection.rollback();
        connection.setReadOnly(false);
        connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        connection.setAutoCommit(true);
        say(connection.isValid(10));
    }

    private static void notifications(Connection connection) throws Exception {
        say("- notifications to oneself");
        query(connection, "LISTEN here");
        query(connection, "NOTIFY here, 'hello'");
        query(connection, "SELECT pg_notify('here', 'ä')");
        for (PGNotification note : connection.unwrap(PGConnection.class).getNotifications()) {
            say(note.getName(), note.getParameter());
        }
        query(connection, "UNLISTEN *");
    }

    /** They are written by FunctionCall. Its number is the program's: a server takes the next that is free. */
    private static void largeObjects(Connection connection) throws Exception {
        say("- large objects");
        String left = "SELECT oid FROM pg_largeobject_metadata WHERE oid = " + LARGE;
        query(connection, "DO $$ BEGIN PERFORM lo_unlink(oid) FROM (" + left + ") l; END $$");
        query(connection, "SELECT lo_create(" + LARGE + ")");
        connection.setAutoCommit(false);
        LargeObjectManager objects = connection.unwrap(PGConnection.class).getLargeObjectAPI();
        for (String what : new String[] {"written", "written over", "cut off", "rolled back"}) {
            try (LargeObject object = objects.open(LARGE, LargeObjectManager.READWRITE)) {
                switch (what) {
                    case "written" -> object.write("0123456789".repeat(5000).getBytes());
                    case "written over" -> {
                        object.seek(12345);
                        object.write(new byte[] {0, 1, (byte) 255});
                    }
                    case "cut off" -> object.truncate(20000);
                    default -> object.write("never".getBytes());
                }
                object.seek(12340);
                say(what, object.size(), object.tell(), Arrays.toString(object.read(10)));
            }
            if (what.equals("rolled back")) {
                connection.rollback();
            }
            // Large objects are compared by what stands here of them.
            query(connection, "INSERT INTO kept SELECT '" + what + "', md5(lo_get(" + LARGE + ")), length(lo_get(" + LARGE + "))");
            connection.commit();
        }
        attempt(() -> objects.open(LARGE + 1, LargeObjectManager.READ));
        connection.rollback();
        connection.setAutoCommit(true);
        query(connection, "SELECT * FROM kept ORDER BY what");
    }

    private static final long LARGE = 434343;

    private static void cancels(Connection connection) throws Exception {
        say("- a cancel, and a timeout of the server's");
        attempt(() -> {
            CopyOut out = connection.unwrap(PGConnection.class).getCopyAPI().copyOut(SLOW);
            for (byte[] row = out.readFromCopy(); row != null; row = out.readFromCopy()) {
                say(row.length);
                if (row.length > 1000 && !cancelled) {
                    cancelled = true;
                    connection.unwrap(PGConnection.class).cancelQuery();
                }
            }
        });
        cancelled = false;
        query(connection, "SET statement_timeout = '50ms'");
        query(connection, "SELECT pg_sleep(30)");
        query(connection, "RESET statement_timeout");
    }

    private static boolean cancelled;

    public static void main(String[] arguments) throws Exception {
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            say("---", mode);
            try (Connection connection = connect(mode)) {
                query(connection, SCHEMA);
                values(connection);
                batches(connection);
                cursors(connection);
                copies(connection);
                transactions(connection);
                notifications(connection);
                largeObjects(connection);
                cancels(connection);
                query(connection, "SELECT 'awake'");
            }
        }
        say("--- batches rewritten, everything in binary");
        try (Connection connection = connect("extended", "reWriteBatchedInserts", "true", "prepareThreshold", "-1")) {
            query(connection, SCHEMA);
            values(connection);
            batches(connection);
        }
        say("--- a savepoint before each statement, and each portion");
        try (Connection connection = connect("extended", "autosave", "always", "defaultRowFetchSize", "50")) {
            connection.setAutoCommit(false);
            query(connection, "SELECT nothing");
            query(connection, "SELECT count(*) FROM line");
            connection.commit();
            cursors(connection);
        }
        say("--- a database that is not there");
        attempt(() -> connect("extended", "database", "nowhere"));
        say("--- done");
    }
}
