/* DPDK's inline functions as ordinary ones, each worth a call: they work on a burst, or off the fast path. */
#define _GNU_SOURCE
#include <stdio.h>

#include "shim.h"

/* The transmit-offload word is written as one number in Rust: l2_len, l3_len and l4_len from its low end up. */
_Static_assert(RTE_MBUF_L2_LEN_BITS == 7, "l2_len is 7 bits wide");
_Static_assert(RTE_MBUF_L3_LEN_BITS == 9, "l3_len is 9 bits wide");
_Static_assert(RTE_MBUF_L4_LEN_BITS == 8, "l4_len is 8 bits wide");
_Static_assert(sizeof(((struct rte_mbuf *)0)->tx_offload) == 8, "tx_offload is 64 bits wide");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bit fields are filled from the low end");
/* Rust reads these with types of these sizes. */
_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_addr) == sizeof(void *), "buf_addr is a pointer");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_off) == 2, "data_off is 16 bits wide");
_Static_assert(sizeof(((struct rte_mbuf *)0)->refcnt) == 2, "refcnt is 16 bits wide");
_Static_assert(sizeof(((struct rte_mbuf *)0)->nb_segs) == 2, "nb_segs is 16 bits wide");
_Static_assert(sizeof(((struct rte_mbuf *)0)->ol_flags) == 8, "ol_flags is 64 bits wide");
_Static_assert(sizeof(((struct rte_mbuf *)0)->pkt_len) == 4, "pkt_len is 32 bits wide");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_len) == 2, "data_len is 16 bits wide");
_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_len) == 2, "buf_len is 16 bits wide");

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    return rte_eth_tx_burst(port, queue, packets, count);
}

int shim_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count) {
    return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void shim_free(struct rte_mbuf *mbuf) {
    rte_pktmbuf_free(mbuf);
}

int shim_linearize(struct rte_mbuf *mbuf) {
    return rte_pktmbuf_linearize(mbuf);
}

int shim_link_up(uint16_t port) {
    struct rte_eth_link link = {0};
    int result = rte_eth_link_get_nowait(port, &link);
    return result < 0 ? result : link.link_status == RTE_ETH_LINK_UP;
}

int shim_errno(void) {
    return rte_errno;
}

static shim_log_sink log_sink;

static ssize_t write_log(void *cookie, const char *text, size_t length) {
    (void)cookie;
    log_sink(rte_log_cur_msg_loglevel(), text, length);
    return (ssize_t)length;
}

int shim_log_to(shim_log_sink sink) {
    log_sink = sink;
    /* rte_vlog flushes after each message, on the thread that logs: the level belongs to the text. */
    FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_log});
    return stream == NULL ? -1 : rte_openlog_stream(stream);
}
