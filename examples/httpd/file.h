/*
 * Files below the server's root.
 */
#ifndef HTTPD_FILE_H
#define HTTPD_FILE_H

struct connection;

/* GET /file?name=: answer with the file's content, 400, 403, 404 or 503. Suspension point. */
void file_serve(struct connection *connection, const char *query);

/*
 * Open a regular file below the directory `root` for reading. Whatever `name` says, nothing outside the
 * directory is opened: neither through "..", nor an absolute name, nor a symbolic link. A descriptor,
 * -ENOENT, -EACCES (there, but not to be had this way), or another -errno. May block: not for workers.
 */
int file_open_beneath(int root, const char *name);

#endif
